"""Room commands on their way to the owner of their partition: `outbox` decides (pure), `router` sends and receives.

Read `outbox` first; the format of a body is in `shared.commands.body`.
"""
