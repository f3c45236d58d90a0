"""Users as rooms show them.

Who is online: `presence_record`; `presence` writes what gateways report, through `presence_store`; `announcer` notifies
the rooms, with `announcement_store`. The decisions of the announcer are in `announcements` and `count_schedule`.
Names and pictures: `profiles` with `profile_store`. Who may be notified of what: `notify_rules`.
"""
