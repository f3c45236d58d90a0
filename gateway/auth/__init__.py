"""Authentication: JSON Web Tokens in, identities out.

Reading order: `identity` (the result), `token_verifier`, `keys` (which key may serve which algorithm), `jwks` and
`jwks_schedule` (keys published by an issuer), `revocations` (revoked tokens and bans), `authenticator` (authenticates
every REST call and WebSocket).
"""
