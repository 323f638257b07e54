"""The values that flow through edgetune: frozen, comparable, written to JSON. Stdlib and numpy."""
