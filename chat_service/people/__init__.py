"""Users as rooms show them.

- `presence_record`: a user's presence (pure); `presence` writes the reports of gateways, through `presence_store`;
- `announcer` notifies the rooms, with `announcement_store`; its decisions: `announcements`, `count_schedule` (pure);
- `profiles`, `profile_store`: names and pictures;
- `notify_rules`: the rule for notifications (pure).
"""
