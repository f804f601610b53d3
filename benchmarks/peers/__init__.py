"""Every way of labelling that is compared, a process of its own each."""
