"""Operations on wallets: audit one against its ledger, rebuild it, and report what balances pay for."""
