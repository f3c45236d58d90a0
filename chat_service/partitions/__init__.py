"""Partitions: one replica owns the rooms of a partition and carries out their commands.

- `rendezvous`, `ownership` (pure), `owner_store`, `running_partitions`, `owned_partitions`: the assignment of
  partitions to replicas;
- `hand_overs`, `leases`, `claimed_repair`: the next owner of a partition; whether a replica is gone; repair of the
  records of claimed partitions;
- `body_dedup`, `command_age`: repeated bodies of commands, and their age;
- `rates`, `rate_limit`: the rates of a user, across replicas; `costs`, `settlement`: the maximum costs of commands,
  and their refunds; `limits`, `reservations`: the verdict on each command, and the quotas;
- `room_cache`: the rooms in memory, and their loading;
- `commit_path`: loads, decides and commits a batch; `batch`: its commands; `answers`: the answers to them;
- `partition`: the loop of one partition, from bodies to answers, with retries.
"""
