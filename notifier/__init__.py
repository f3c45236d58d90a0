"""Events of internal services for their audiences, each user's inbox, price alerts, revocations.

Read `events` first (an event as a notice for an audience), then `intake` (the consumer that delivers them) and `inbox`
(the stored notifications of each user). `alerts` watches prices, `revocations` keeps bans and revoked tokens. `queries`
joins the query handlers; `settings`, `metrics`; `__main__` composes the service.
"""
