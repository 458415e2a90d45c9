"""Pictures and pages made from artefacts."""
