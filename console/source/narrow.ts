/** A window in which the panels lie over the editors (as in explorer.css). */
export const NARROW = "(max-width: 760px)";
