"""The charge for a quantity (`rating`) and the wallet that pays it (`wallet`), in integer nano-units.

Pure, so that rating downstream yields the same bill.
"""

from sidecar.core.price.rating import (
    NANOS_MAX,
    Price,
    Tier,
    charged,
    highest_unit_price,
    in_lowest_terms,
    price_fault,
    rate,
)

__all__ = ["NANOS_MAX", "Price", "Tier", "charged", "highest_unit_price", "in_lowest_terms", "price_fault", "rate"]
