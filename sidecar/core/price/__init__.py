"""What a quantity costs (`rating`), and what pays for it (`wallet`), in integer nano-units.

Pure, so that rating downstream yields the same bill.
"""

from sidecar.core.price.rating import NANOS_MAX, Price, Tier, charged, dearest, lowest, price_fault, rate

__all__ = ["NANOS_MAX", "Price", "Tier", "charged", "dearest", "lowest", "price_fault", "rate"]
