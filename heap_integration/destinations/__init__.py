"""The systems that members, profiles and events go to, one file each."""
