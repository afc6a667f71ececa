"""The listening sockets, the connections that come in, and the certificate that TLS shows them."""
