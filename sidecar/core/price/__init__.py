"""What a quantity costs (`rating`), in integer nano-units, so that rating downstream yields the same bill."""

from sidecar.core.price.rating import Price, Tier, rate

__all__ = ["Price", "Tier", "rate"]
