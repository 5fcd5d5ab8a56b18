"""What a handler can await on its context, one kind a file; each happens once however often the handler is entered."""
