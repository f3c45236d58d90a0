"""Bans and revoked tokens: `rules` (pure), `consumer` (the one writer) and `store`."""
