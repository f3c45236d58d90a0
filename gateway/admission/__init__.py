"""Admission control: which sockets may open, and how fast.

Reading order: `pace` (adaptive limit on connection set-up), `addresses` and `open_connections` (the bound on TCP
connections), `refused`, `admission` (every check at the WebSocket upgrade), `admission_queue` (FIFO queue of clients
that wait for set-up).
"""
