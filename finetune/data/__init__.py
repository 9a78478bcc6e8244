"""Files, folders, tables and Hub data sets → rows → splits and a label space, checked."""
