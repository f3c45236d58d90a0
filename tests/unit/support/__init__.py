"""Tests of the test tools' pure parts."""
