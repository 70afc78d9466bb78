"""What a request costs as things grow: one curve for each thing, measured point beside point in the same rounds."""
