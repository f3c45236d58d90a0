"""notifier: events of internal services to their audiences; each user's inbox; price alerts."""
