"""One file per command: read artefacts, call the domain, write an artefact."""
