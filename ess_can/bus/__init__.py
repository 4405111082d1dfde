"""The bus port and what implements it over real adapters; ISO-TP channels on top of it."""
