"""The dbt models of an environment: their settings, variables and runs."""
