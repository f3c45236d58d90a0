"""What the tests stand on: real servers, started and ended on demand."""
