"""Rooms, messages, members, presence: the one writer of each room, and its readers."""
