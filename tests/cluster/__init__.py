"""The whole system on a broker cluster that loses nodes."""
