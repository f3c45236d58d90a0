"""Authentication: JSON Web Tokens in, identities out.

Reading order: `identity` (the result), `authenticator` (token verification), `keys` (which key may serve which
algorithm), `jwks` and `jwks_schedule` (keys published by an issuer), `revocations` (revoked tokens and bans), `guard`
(authenticates every REST call and WebSocket).
"""
