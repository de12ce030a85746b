"""Device and server over a network: a session protocol, a server of many streams, and a link to one."""
