"""How each family of assets is built for one environment."""
