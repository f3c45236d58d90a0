"""Where ticks come from. Each source hands them to the feed; several may run at once."""
