terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 8"
    }
  }

  # terraform init -backend-config=bucket=BUCKET -backend-config=prefix=headworks/prod
  backend "gcs" {}
}

provider "google" {
  project        = var.project
  region         = var.region
  default_labels = local.labels
  # Budgets are asked of the project that asks.
  billing_project       = var.project
  user_project_override = true
}

data "google_project" "this" {
  project_id = var.project
}

data "google_storage_project_service_account" "this" {
  project = var.project
}

locals {
  number = data.google_project.this.number
  labels = merge({ system = "headworks", environment = var.environment }, var.labels)
  name   = "headworks-${var.environment}"
}
