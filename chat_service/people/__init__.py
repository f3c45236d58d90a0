"""Users as rooms show them: `presence`, who is online, and `profiles`; with `presence_store` and `profile_store`."""
