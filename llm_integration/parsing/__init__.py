"""The steps by which a reply is read, from strict JSON down to labelled prose; each reads surely or refuses."""
