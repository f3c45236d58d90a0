"""What every service shares: the contract (pure modules) and the shells around broker, database and process."""
