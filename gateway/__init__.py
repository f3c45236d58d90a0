"""Holds sockets and nothing else: authenticates, checks frames, forwards commands, writes deliveries."""
