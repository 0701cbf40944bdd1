"""One tiny batch, tried on the driver before a cluster is paid for."""
