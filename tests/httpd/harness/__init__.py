"""A real httpd with the module, the Bitbucket simulator, and a browser: what the tests stand on.

config      what is written for httpd to read
server      httpd's life: start, reload, stop
sanitizers  what looks over its shoulder meanwhile
simulator   Bitbucket's life, and how it is steered
client      a browser without a screen
logs        what httpd wrote, and what it must never write
clock       httpd in another time
load        many requests at once
recipes     the pages of docs/recipes, made to run here
fixtures    all of it as pytest fixtures
"""
