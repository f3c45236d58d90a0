"""Room commands on their way to the owner of their partition: `outbox` decides (pure), `router` sends and receives.

Read `outbox` first. `backlog_limit` sheds load while an owner answers late, `restore_detector` notices a restore of
the database. The format of a body is in `shared.commands.body`.
"""
