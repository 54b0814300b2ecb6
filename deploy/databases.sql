-- One database each; run once, by the role that is to own them.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
