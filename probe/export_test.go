package probe

// Display lets the tables show R5 for states that are rare in histories.
var Display = Rules.display
