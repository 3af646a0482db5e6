// Everything is there: begin.
makePlots();
showCommand();
showCalendar();
look();
lookBack();
lookAtHours();
