"""The charge for a quantity (`rating`) and the wallet that pays it (`wallet`), in integers of a unit's scale.

Pure, so that rating downstream yields the same bill.
"""

from sidecar.core.price.decimals import AMOUNT_MAX
from sidecar.core.price.rating import (
    Price,
    Tier,
    charged,
    highest_unit_price,
    in_lowest_terms,
    price_fault,
    rate,
)

__all__ = ["AMOUNT_MAX", "Price", "Tier", "charged", "highest_unit_price", "in_lowest_terms", "price_fault", "rate"]
