"""Operations on records that were written: read them back, show the last ones, verify and count them."""
