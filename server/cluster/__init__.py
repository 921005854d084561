"""Several servers as one: an ingress that places sessions on replicas, which Ray Serve keeps running."""
