"""Room commands on their way to the owner of their partition: `lanes` decides (pure), `router` sends and receives.

Read `lanes` first; the format of a body is in `shared.commands.body`.
"""
