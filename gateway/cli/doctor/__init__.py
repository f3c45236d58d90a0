"""`realtime doctor`: looks at a running installation, and says what is wrong and how to mend it.

`reports` holds what was seen, `findings` what it means. `process_checks`, `broker_checks` and `database_checks` judge
the reports (pure); `probes` makes them, and changes nothing that it looks at.
"""
