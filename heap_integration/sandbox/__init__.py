"""Stand-ins for Heap and Userflow over real sockets, with a console page."""
