"""What the processes of the load generator do."""
