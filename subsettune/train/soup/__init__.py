"""LiPT's soup: workers on disjoint shards that train apart and are averaged."""
