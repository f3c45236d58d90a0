"""The web page in Chromium: tests and screenshots. Skipped where Chromium is missing."""
