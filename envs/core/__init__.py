"""Contracts, budget arithmetic, registry, journal and ledger: what every problem stands on."""
